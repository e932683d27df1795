"""From a ledger to a registered model: chosen, averaged, trained once more, calibrated, evaluated once."""
