//! What hosts tell again, and what they keep.
