//! Skeleton of topics.
