"""Jobs: routes, submission, events, results and views."""
