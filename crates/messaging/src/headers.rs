//! Skeleton of headers.
