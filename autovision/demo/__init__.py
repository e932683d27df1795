"""The whole loop on real images: the story, and its report for terminals, machines and readers.

result   everything that the report shows, as frozen records
verdict  whether the second model is better, from the numbers alone
console  the report in a terminal
page     the report as one self-contained HTML page, made of `sections` and `charts`
"""
