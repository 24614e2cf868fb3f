//! Skeleton of config.
