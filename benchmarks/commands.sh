#!/bin/sh
# One command for every published row, from the repository's root; `worldbench` as README.md says. The checkpoints were made by
# `worldbench bench --preset standard`, whose cells --only picks: `--only pldm-compact,push-t`. Such a
# line trains seeds 0, 1 and 2 anew; the counts beside it are of seeds 1 and 2 (PLDM: CEM and MPPI of each).
set -e

# push_t
worldbench eval --checkpoint checkpoints/dino-wm-compact --planner cem --split test --set solver.samples=128 --set solver.iterations=10 --set solver.topk=20  # 143 of 200
worldbench bench --preset standard --only dino-wm-compact,push-t  # 132 and 138 of 200
worldbench bench --preset standard --only gcbc-compact,push-t  # 171 and 170 of 200
worldbench eval --checkpoint checkpoints/gcbc-compact --split test --set execute=2  # 163 of 200
worldbench bench --preset standard --only gcbc-trained-compact,push-t  # 164 and 167 of 200
worldbench eval --checkpoint checkpoints/gcbc-trained-compact --split test --set execute=2  # 166 of 200
worldbench bench --preset standard --only gciql-compact,push-t  # 120 and 120 of 200
worldbench eval --checkpoint checkpoints/gciql-compact --split test  # 126 of 200
worldbench bench --preset standard --only gcivl-compact,push-t  # 163 and 162 of 200
worldbench eval --checkpoint checkpoints/gcivl-compact --split test --set execute=2  # 165 of 200
worldbench bench --preset standard --only iq-learn-bc-compact,push-t  # 86 and 96 of 200
worldbench eval --checkpoint checkpoints/iq-learn-bc-compact --split test  # 99 of 200
worldbench bench --preset standard --only iq-learn-compact,push-t  # 65 and 65 of 200
worldbench eval --checkpoint checkpoints/iq-learn-compact --split test  # 56 of 200
worldbench eval --checkpoint checkpoints/lewm-compact --planner cem --split test  # 164 of 200
worldbench bench --preset standard --only lewm-compact,push-t  # 155 and 164 of 200
worldbench eval --policy no-op --split test  # 0 of 200
worldbench eval --policy oracle --split test  # 200 of 200
worldbench eval --checkpoint checkpoints/pldm-compact --planner cem --split test  # 155 of 200
worldbench eval --checkpoint checkpoints/pldm-compact --planner mppi --split test  # 158 of 200
worldbench bench --preset standard --only pldm-compact,push-t  # 161 and 160 and 151 and 160 of 200
worldbench eval --policy random --split test  # 10 of 200
worldbench eval --policy replay --split test  # 200 of 200
worldbench eval --policy weak --split test  # 17 of 200

# two_room
worldbench eval --checkpoint checkpoints/two_room-dino-wm-compact --planner cem --split test --set solver.samples=256 --set solver.iterations=10 --set solver.topk=40  # 162 of 200
worldbench bench --preset standard --only dino-wm-compact,two-room  # 166 and 172 of 200
worldbench bench --preset standard --only gcbc-compact,two-room  # 197 and 196 of 200
worldbench eval --checkpoint checkpoints/two_room-gcbc-compact --split test --set execute=2  # 198 of 200
worldbench bench --preset standard --only gciql-compact,two-room  # 199 and 198 of 200
worldbench eval --checkpoint checkpoints/two_room-gciql-compact --split test  # 200 of 200
worldbench bench --preset standard --only gcivl-compact,two-room  # 198 and 199 of 200
worldbench eval --checkpoint checkpoints/two_room-gcivl-compact --split test --set execute=2  # 198 of 200
worldbench bench --preset standard --only iq-learn-bc-compact,two-room  # 197 and 198 of 200
worldbench eval --checkpoint checkpoints/two_room-iq-learn-bc-compact --split test  # 197 of 200
worldbench bench --preset standard --only iq-learn-compact,two-room  # 194 and 189 of 200
worldbench eval --checkpoint checkpoints/two_room-iq-learn-compact --split test  # 197 of 200
worldbench eval --checkpoint checkpoints/two_room-lewm-compact --planner cem --split test  # 191 of 200
worldbench bench --preset standard --only lewm-compact,two-room  # 190 and 196 of 200
worldbench eval --env two_room --policy no-op --split test  # 0 of 200
worldbench eval --env two_room --policy oracle --split test  # 200 of 200
worldbench eval --checkpoint checkpoints/two_room-pldm-compact --planner cem --split test  # 192 of 200
worldbench eval --checkpoint checkpoints/two_room-pldm-compact --planner mppi --split test  # 196 of 200
worldbench bench --preset standard --only pldm-compact,two-room  # 195 and 189 and 193 and 188 of 200
worldbench eval --env two_room --policy random --split test  # 19 of 200
worldbench eval --env two_room --policy replay --split test  # 200 of 200
worldbench eval --env two_room --policy weak --split test  # 19 of 200
