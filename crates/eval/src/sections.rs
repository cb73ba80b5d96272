//! What the benchmark page says about each system: paper, planner, training objective.

use crate::System;

/// The fixed text of one section.
pub(crate) struct Section {
    pub system: System,
    pub title: &'static str,
    /// A paragraph with the paper's link and the planner's name.
    pub about: &'static str,
    /// The training objective, TeX.
    pub formula: &'static str,
    /// What its symbols mean.
    pub symbols: &'static str,
}

pub(crate) const MAIN: &[Section] = &[
    Section {
        system: System::DinoWm,
        title: "DINO World-Model",
        about: "DINO-WM ([Zhou et al. 2025](https://arxiv.org/abs/2411.04983)) never learns to see: a frozen DINOv2 \
                turns each frame into patch features, and only a causal transformer that predicts the next frame's \
                patches from past patches and actions is trained. The Cross-Entropy Method (CEM) plans by \
                minimising the distance between predicted and goal patches.",
        formula: "\\mathcal{L} = \\mathcal{L}_{sim} = \\lVert \\hat z_{t+1} - z_{t+1} \\rVert^2",
        symbols: "$z_{t+1}$: frozen patch features of the next frame (and the proprioception embedding where used); \
                  $\\hat z_{t+1}$: their prediction from the true past features and actions (teacher forcing).",
    },
    Section {
        system: System::Pldm,
        title: "Planning with Latent Dynamics Model",
        about: "PLDM ([Sobal et al. 2025](https://arxiv.org/abs/2502.14819)) is a joint-embedding predictive \
                architecture: encoder and latent dynamics are trained together from scratch, without \
                reconstruction and without rewards. Variance and covariance terms keep the latents from collapsing. \
                Model Predictive Path Integral control (MPPI) plans in latent space.",
        formula: "\\mathcal{L} = \\mathcal{L}_{sim} + \\alpha \\mathcal{L}_{std} + \\beta \\mathcal{L}_{cov} + \
                  \\delta \\mathcal{L}_{temp} + \\omega \\mathcal{L}_{idm}",
        symbols: "$\\mathcal{L}_{sim}$: squared error between predicted and encoded next latents; \
                  $\\mathcal{L}_{std}$, weight $\\alpha$: hinge that keeps every latent dimension's standard \
                  deviation from falling below 1, over the batch and over time; $\\mathcal{L}_{cov}$, weight \
                  $\\beta$: squared covariance between different latent dimensions; $\\mathcal{L}_{temp}$, weight \
                  $\\delta$: smoothness of successive latents; $\\mathcal{L}_{idm}$, weight $\\omega$: error of an \
                  inverse dynamics model that recovers the action from two successive latents.",
    },
    Section {
        system: System::Gcbc,
        title: "Goal-Conditioned Behavioural Cloning",
        about: "GCBC ([Ghosh et al. 2019](https://arxiv.org/abs/1912.06088)) treats every later frame of an episode \
                as a goal that the episode's actions reach, and imitates them. Its feed-forward policy acts without \
                any planning; here it gives a few actions at a time, of which the first or the first two are executed.",
        formula: "\\mathcal{L} = \\lVert \\pi(s, g) - a \\rVert^2",
        symbols: "$s$: current observation; $g$: goal, a later observation of the same episode; $a$: recorded action; \
                  $\\pi$: the policy.",
    },
];

/// What stands above the sections of [`INVERSE_Q`].
pub(crate) const INVERSE_Q_ABOUT: &str = "The name is read in two ways, and both are here: *inverse* Q-learning, which \
    recovers a Q-function from demonstrations alone (IQ-Learn), and *implicit* Q-learning, which learns values offline by \
    expectile regression (GCIQL, and GCIVL without a Q-function).";

pub(crate) const INVERSE_Q: &[Section] = &[
    Section {
        system: System::IqLearn,
        title: "IQ-Learn",
        about: "Inverse soft-Q learning ([Garg et al. 2021](https://arxiv.org/abs/2106.12142)) learns one soft \
                Q-function from demonstrations; it carries both the reward and the feed-forward policy, with neither \
                reward labels nor a discriminator. Rows marked *+ BC* add $\\beta \\lVert \\mu - a \\rVert^2$ to the actor's \
                loss, the distance of its mode $\\mu$ from the demonstrated action, which the published method lacks.",
        formula: "\\mathcal{L}_Q = -\\mathbb{E}\\left[r_Q - \\tfrac{1}{4\\kappa} r_Q^2\\right] + \
                  \\mathbb{E}\\left[V(s,g) - \\gamma m V(s',g)\\right], \\quad r_Q = Q(s,a,g) - \\gamma m V(s',g)",
        symbols: "$Q$: soft action value; $V(s,g) = \\mathbb{E}_{a \\sim \\pi}[Q(s,a,g) - \\tau \\log \\pi(a|s,g)]$: soft \
                  value with entropy temperature $\\tau$; $r_Q$: the reward that $Q$ implies; $\\gamma$: discount; \
                  $m$: 0 where $s'$ is the goal, else 1; $\\kappa$: weight of the chi-squared regulariser.",
    },
    Section {
        system: System::Gciql,
        title: "GCIQL",
        about: "Goal-conditioned implicit Q-learning ([Kostrikov et al. 2021](https://arxiv.org/abs/2110.06169), \
                goal-conditioned as in [OGBench](https://arxiv.org/abs/2410.20092)) fits values by expectile \
                regression, so that it never asks for the value of an action outside the data; a feed-forward policy \
                is then extracted by advantage-weighted regression.",
        formula: "\\mathcal{L} = \\mathbb{E}\\left[\\ell^2_\\tau(Q - V)\\right] + \
                  \\mathbb{E}\\left[(r + \\gamma m V(s',g) - Q)^2\\right] - \
                  \\mathbb{E}\\left[e^{\\alpha (Q - V)} \\log \\pi(a|s,g)\\right]",
        symbols: "$Q = Q(s,a,g)$, $V = V(s,g)$: values; $\\ell^2_\\tau(u) = |\\tau - 1(u<0)| u^2$: expectile loss; $r$: \
                  -1 until the goal is reached; $\\gamma$: discount; $m$: 0 at the goal, else 1; $\\alpha$: inverse \
                  temperature of the weights.",
    },
    Section {
        system: System::Gcivl,
        title: "GCIVL",
        about: "Goal-conditioned implicit V-learning (the variant of [OGBench](https://arxiv.org/abs/2410.20092) \
                without a Q-function): the value of the next observation stands in for the action's value. Policy: \
                feed-forward, by advantage-weighted regression.",
        formula: "\\mathcal{L} = \\mathbb{E}\\left[\\ell^2_\\tau(r + \\gamma m \\bar V(s',g) - V(s,g))\\right] - \
                  \\mathbb{E}\\left[e^{\\alpha (V(s',g) - V(s,g))} \\log \\pi(a|s,g)\\right]",
        symbols: "$V$: value, $\\bar V$ its slowly moving average; the other symbols as for GCIQL.",
    },
];

pub(crate) const FURTHER: &[Section] = &[Section {
    system: System::LeWm,
    title: "LeWorldModel",
    about: "LeWM is the same network as PLDM with one regulariser in place of the variance, covariance and temporal \
            terms: SIGReg pulls every random projection of the latents towards a standard normal distribution. \
            Planner: CEM, as in its published rows.",
    formula: "\\mathcal{L} = \\mathcal{L}_{sim} + \\lambda \\, \\mathrm{SIGReg}(z)",
    symbols: "$\\mathcal{L}_{sim}$: squared error between predicted and encoded next latents, without stop-gradient; \
              $\\mathrm{SIGReg}$: Epps-Pulley distance of projected latents $z$ from a standard normal; $\\lambda$: its \
              weight.",
}];
