"""What `import edge_train` offers programs: runs, plans and training of their own modules."""
