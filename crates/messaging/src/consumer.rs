//! Skeleton of consumer.
