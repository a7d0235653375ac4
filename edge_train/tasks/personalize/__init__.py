"""Task personalize: photos in, a word of a Stable Diffusion out."""
