"""The policies that are compared."""

from __future__ import annotations

from autovision.records.deployments import RetrainingPolicy

SHIPPED = "shipped"
POLICIES = {
    SHIPPED: RetrainingPolicy(),
    "never": RetrainingPolicy(drift_detectors=(), volume_labels=None),
    "nightly": RetrainingPolicy(schedule="0 2 * * *", drift_detectors=(), volume_labels=None),
    "nightly, judged once": RetrainingPolicy(schedule="0 2 * * *", drift_detectors=(), volume_labels=None),
    "every alarm": RetrainingPolicy(min_labels=1, labels_growth=1.0, volume_labels=None),
}
"""the shipped one is what a deployment has whose user says nothing; those beside it have its window and budget"""
JUDGED_ONCE = ("nightly, judged once",)
"""whose refused challengers nobody looks at again, as it is where a scheduler retrains and a test split decides"""
