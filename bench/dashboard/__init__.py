"""The dashboard: the history of `make bench` as one HTML file that opens offline.

`trends` makes series from the records, `page` puts tables and data on a page in the style of the reports, and
`dashboard.js` draws with plotly.js, which is part of the plotly package. The page holds numbers only, and draws a chart
when it comes into view: hundreds of runs of hundreds of cases can then be filtered.
"""
