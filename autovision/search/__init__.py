"""The search: which trials to run, on what share of the budget, and which model comes of them.

`run` is a whole search, `tune_loop` has its trials run, `driver` decides. What decisions rest on, from the top down:

sharing           many searches on one cluster
sampling          which point of the space is next
multiobjective    several objectives at once
constraints       what a request demands of the model
costing           what a trial takes

Beside these, `estimates` says what a budget buys, and `finishing` makes a model of a ledger.
"""
