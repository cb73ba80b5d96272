//! LeRobot.
