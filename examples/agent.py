#!/usr/bin/env python3
"""An agent for `worldbench eval --policy-cmd "python3 examples/agent.py"`; the protocol stands in docs/agents.md.

It walks straight to where the agent stands in the goal, and so solves only the pairs whose block may stay where it is.
Replace `Agent` by your model. Standard library only.
"""

import base64
import json
import sys

RESOLUTION = 64


def pixels(message):
    """Rows of RGB bytes, top to bottom."""
    data = base64.b64decode(message["pixels"])
    assert len(data) == RESOLUTION * RESOLUTION * 3
    return data


class Agent:
    """Keeps nothing from one episode to the next."""

    def reset(self, goal, seed, budget):
        self.goal_pixels = pixels(goal)
        self.goal = goal["proprio"]

    def act(self, observation):
        if pixels(observation) == self.goal_pixels:
            return [0.0, 0.0]
        # 1 is 100 px; the position is proprio[0:2].
        move = [(g - p) / 100.0 for g, p in zip(self.goal[:2], observation["proprio"][:2])]
        return [max(-1.0, min(1.0, m)) for m in move]


def main():
    agent = Agent()
    for line in sys.stdin:
        message = json.loads(line)
        kind = message["type"]
        if kind == "hello":
            answer = {
                "type": "hello",
                "protocol": 1,
                "name": "straight walk",
                "resolution": RESOLUTION,
                "inputs": ["pixels", "proprio"],
            }
        elif kind == "reset":
            agent.reset(message["goal"], message["seed"], message["budget"])
            answer = {"type": "ready"}
        elif kind == "step":
            answer = {"type": "action", "step": message["step"], "action": agent.act(message["observation"])}
        else:  # close
            break
        # Flush: worldbench waits for the line.
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
