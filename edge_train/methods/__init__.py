"""What `--method` names: methods, and update rules, each of which is a method, too."""

from edge_train.methods.method import Method, Rule
from edge_train.registry import Registry


class _Methods(Registry[Method]):
    """Methods; a rule that another package registers is one, too."""

    def all(self) -> dict[str, Method]:
        found = super().all()
        for rule in rules.all().values():
            if rule.name not in found:
                from edge_train.methods.exact import of_rule

                found[rule.name] = of_rule(rule)
        return found


methods: Registry[Method] = _Methods("method", "edge_train.methods", "METHODS")
rules: Registry[Rule] = Registry("rule", "edge_train.methods", "RULES")
