//! Shows and steers a node over one API.
