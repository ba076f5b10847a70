"""Virtual models: names that stand for other names, by weights, a canary and rules. Pure.

`reading` makes an `Alias` of what a person wrote, `resolving` a model of a request's `Facts`.
"""
