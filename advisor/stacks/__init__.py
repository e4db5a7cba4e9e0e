"""Training stacks other than the one that the decoders mirror: one file a stack, a subclass of decoders.stack.Stack."""
