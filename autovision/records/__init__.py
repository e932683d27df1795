"""What the store holds: frozen records, written as JSON, changed only by copy.

Each stage of the loop reads and writes these and nothing else, so that stages never meet each other:

    DatasetVersion -> SearchRequest -> SearchState, TrialResult -> ModelVersion -> Deployment
          ^                                                                            |
          +------ Decision <- DriftReport <- Capture, Label <--------------------------+

Times are UTC, durations are seconds (`_s`), sizes are bytes (`_bytes`), images are height by width in pixels.
"""
