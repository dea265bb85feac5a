//! Words in, command run, exit status out.

fn main() {}
