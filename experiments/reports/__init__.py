"""Tables, figures and pages: the results in the form that people read."""
