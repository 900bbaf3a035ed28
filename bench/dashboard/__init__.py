"""The dashboard: the history of `make bench` as one HTML file that opens offline.

`trends` turns records into what is drawn, `page` puts tables and data on the page of the reports, `dashboard.js` draws
with plotly.js, which comes inside the plotly package. Hundreds of runs of hundreds of cases are then numbers in the
page, and only the charts that are looked at get drawn; drawings made ahead could not be filtered at that size.
"""
