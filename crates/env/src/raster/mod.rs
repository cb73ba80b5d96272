//! Drawing of Push-T frames.
