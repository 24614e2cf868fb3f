//! Skeleton of codec.
