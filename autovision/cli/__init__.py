"""The command line: a thin layer over `autovision.api`, one module per group of commands.

main        the program: every command, and what becomes of an error
options     the options that commands share
output      answers on stdout, remarks on stderr, tables, JSON
signals     Ctrl-C once: stop in good order; twice: at once
figures     the figures of an evaluation, for people and machines

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""
