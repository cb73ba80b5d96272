//! State-first episode store, windows, normalisers, splits and importers.
