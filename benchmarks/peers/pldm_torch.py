"""One CEM solve of the full-size PLDM in PyTorch, the way the Python reference plans: every window is computed anew.

The predictor has random weights and batch normalisation in evaluation mode; 300 samples x 30 iterations x 5 blocks. Prints
the seconds of four solves, to be laid beside `worldbench perf plan` on the same machine.

    pip install torch==2.15.0
    python3 benchmarks/peers/pldm_torch.py [f32|bf16]
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, HEAD, MLP, DEPTH, FRAMES, ACTION = 192, 16, 64, 2048, 6, 3, 10


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        self.plain = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * HEAD, bias=False)
        self.output = nn.Linear(HEADS * HEAD, WIDTH)
        self.expand, self.contract = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)

    def forward(self, x, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition)).chunk(6, -1)
        batch, frames, _ = x.shape
        y = self.attention_norm(self.plain(x) * (1 + scale1) + shift1)
        q, k, v = self.qkv(y).view(batch, frames, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + gate1 * self.output(y.transpose(1, 2).reshape(batch, frames, HEADS * HEAD))
        y = self.mlp_norm(self.plain(x) * (1 + scale2) + shift2)
        return x + gate2 * self.contract(F.gelu(self.expand(y)))


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, FRAMES, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.actions = nn.Sequential(nn.Linear(ACTION, 10), nn.Linear(10, 768), nn.SiLU(), nn.Linear(768, WIDTH))
        self.project = nn.Sequential(nn.Linear(WIDTH, 2048), nn.BatchNorm1d(2048), nn.GELU(), nn.Linear(2048, WIDTH))

    def forward(self, latents, conditions):
        x = latents + self.positions[:, : latents.shape[1]]
        for block in self.blocks:
            x = block(x, conditions)
        return self.project(self.norm(x).flatten(0, 1)).view_as(x)


@torch.inference_mode()
def solve(model, bf16, samples=300, iterations=30, horizon=5, elites=30):
    start, goal = torch.randn(1, 1, WIDTH).expand(samples, 1, WIDTH), torch.randn(WIDTH)
    mean, std = torch.zeros(horizon, ACTION), torch.ones(horizon, ACTION)
    for _ in range(iterations):
        plans = mean + std * torch.randn(samples, horizon, ACTION)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            conditions, latents = model.actions(plans), start
            for step in range(horizon):
                window = slice(max(0, step + 1 - FRAMES), step + 1)
                newest = model(latents[:, window], conditions[:, window])[:, -1:]
                latents = torch.cat([latents, newest.float()], 1)
        cost = ((latents[:, -1] - goal) ** 2).sum(-1)
        best = plans[cost.topk(elites, largest=False).indices]
        mean, std = best.mean(0), best.std(0)


if __name__ == "__main__":
    torch.set_num_threads(2)
    model = Predictor().eval()
    for _ in range(4):
        begin = time.time()
        solve(model, sys.argv[1:] == ["bf16"])
        print(f"{time.time() - begin:.2f} s", flush=True)
