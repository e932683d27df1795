"""What else leads to a re-search than drift and many labels, and what holds one back: part of a RetrainingPolicy."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from autovision.errors import InvalidInput
from autovision.records import calendar
from autovision.records.base import Record

DETECTORS = ("input", "quality", "prediction", "confidence", "accuracy")
"""of drift, by name"""


class TriggerPolicy(Record):
    """Triggers and limits that came later than the first policies. All are off by default but what keeps from storms:
    the back-off, and that more labels are needed after re-searches in vain."""

    time_zone: str = "UTC"
    """that schedule, quiet hours, days and months are of"""
    schedule: str | None = None
    """cron expression of slots at which to search again; None: never"""
    schedule_labels: int = Field(default=1, ge=0)
    """new labels without which a slot passes"""
    accuracy_floor: float | None = Field(default=None, gt=0, lt=1)
    """a re-search follows where late labels show that fewer answers are right; None: not looked at"""
    accuracy_margin: float | None = Field(default=None, gt=0, lt=1)
    """the same where accuracy is lower than on the champion's test images by more than this; None: not looked at"""
    accuracy_labels: int = Field(default=50, ge=10)
    """labelled requests of the champion that accuracy is judged by, at least"""
    accuracy_alpha: float = Field(default=0.001, gt=0, lt=0.5)
    """probability that one look finds an accuracy too low which is not"""
    drift_detectors: tuple[str, ...] | None = None
    """names of those whose alarms count; None: any alarm; none: drift never leads to a re-search"""
    labels_growth: float = Field(default=2.0, ge=1, le=10, allow_inf_nan=False)
    """so many times the labels an alarm, or a low accuracy, has to come with after each re-search of a champion that
    found none better, but for the first one; 1: always as many"""
    min_labels_per_class: int = Field(default=0, ge=0)
    """new labels of each class of the data set that a re-search needs"""
    budget_day_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """wall seconds that re-searches begun on one day may use; None: any"""
    budget_month_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """the same of a calendar month"""
    quiet_hours: tuple[str, ...] = ()
    """in which no re-search begins, such as `22:00-06:00` or `sat-sun 00:00-24:00`"""
    backoff_s: float = Field(default=3600.0, ge=0, allow_inf_nan=False)
    """no re-search begins so soon after one that failed; doubled with each further failure, a week at most"""

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            calendar.zone(name)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("schedule")
    @classmethod
    def _schedule_is_cron(cls, expression: str | None) -> str | None:
        try:
            return None if expression is None else calendar.check_schedule(expression)
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("quiet_hours")
    @classmethod
    def _hours_are_understood(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            try:
                calendar.quiet_hours(text)
            except InvalidInput as error:
                raise ValueError(str(error)) from None
        return texts

    @model_validator(mode="after")
    def _budgets_fit(self) -> Self:
        # A search that no day has room for would wait for ever.
        each = getattr(self, "budget_s", 0.0)
        for name in ("budget_day_s", "budget_month_s"):
            if (most := getattr(self, name)) is not None and most < each:
                raise ValueError(
                    f"{name} is {most:g} s, and each re-search may use budget_s = {each:g} s; give at least as much"
                )
        return self
