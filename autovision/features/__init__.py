"""The frozen-prefix feature store: what lies below a cut is computed once, for every epoch of every trial."""
