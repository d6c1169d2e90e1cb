//! Weir, nginx and HAProxy with equal set-ups.
