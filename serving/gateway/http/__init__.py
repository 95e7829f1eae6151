"""HTTP bodies in and out: forms, requests, responses, errors, schemas, the specification."""
