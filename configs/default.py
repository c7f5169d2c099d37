"""The default config: every key, with its unit and meaning. Experiments override a few keys."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.seed = 0  # of parameters, noise and data order
    config.steps = 100_000  # optimizer steps of each network, warm-up included
    config.batch_size = 16  # images per step, over all devices

    data = config.data = ml_collections.ConfigDict()
    data.source = "folder"  # "digits" (embedded), "folder", "tfds" (of introvae_jax.prepare) or "density" (2-D)
    data.path = ""  # folder: a folder or archive of images; tfds: folder of data sets, "" for TFDS's default
    data.name = ""  # tfds: "celeb_a_hq/256"; density: "8gaussians", "2spirals", "checkerboard" or "rings"
    data.size = 64  # height and width in pixels, a power of two from 16 to 1024
    data.channels = 3  # 1 (grey) or 3 (RGB)
    data.crop = "center"  # "center" (largest centred square), "none" (stretched), "WxH" or "WxH+X+Y"
    data.resize = "lanczos"  # "lanczos", "bicubic", "bilinear" or "box", for images of another size
    data.mirror = False  # flip each training image left to right with probability 1/2
    data.dequantize = False  # add uniform noise of one grey level to training images
    data.test_fraction = 0.05  # share of held-out images if the data set has no test split
    data.cache = "host"  # "host", or "device": all training images on every accelerator, no loading
    data.cache_gib = 4.0  # host: keep decoded images in memory up to this many GiB
    data.threads = 0  # threads that read and decode; 0 for one per core

    model = config.model = ml_collections.ConfigDict()
    model.network = "residual"  # "residual" (the paper's, for images) or "mlp" (for 2-D densities)
    model.channels = (32, 64, 128, 256)  # log2(size / 4) channel counts, from full resolution down
    model.z_dim = 128  # latent dimensions
    model.prior = "normal"  # prior of the latents: "normal", or "sphere" (age)
    model.norm = "batch"  # "batch" (moments of the global batch), "group" or "none"
    model.block_norm = "sum"  # input of a block's second norm: "sum" (IntroVAE) or "branch" (Soft-IntroVAE)
    model.expand_equal = False  # 1x1 convolutions between equal channel counts, as in IntroVAE's released code
    model.dtype = "float32"  # of the convolutions: "float32" or "bfloat16"
    model.width = 256  # units of a hidden layer (mlp)
    model.depth = 4  # hidden layers (mlp)
    model.remat = False  # recompute blocks in the backward pass: less memory, more time

    objective = config.objective = ml_collections.ConfigDict()
    objective.name = "introvae"  # "introvae", "vae", "soft_introvae" or "age"
    objective.alpha = 0.25  # weight of the encoder's hinges (introvae)
    objective.alpha_d = 0.5  # weight of the decoder's KL terms (introvae)
    objective.beta = 0.5  # weight of the reconstruction term, half the squared error summed over pixels (not age)
    objective.auto_beta = 0.0  # beta = this * sqrt(values of an image) / reconstruction error; 0: beta (introvae, vae)
    objective.beta_kl = 1.0  # weight of the KL in the ELBO (vae, soft_introvae)
    objective.beta_neg = 256.0  # weight of the KL in exp(ELBO) of generated images (soft_introvae)
    objective.gamma = 0.0  # weight, relative to beta, of reconstructing generated images (soft_introvae)
    objective.match_x = 20.0  # weight of the encoder's reconstruction term, absolute error per pixel (age)
    objective.match_z = 8.0  # weight of the decoder's latent term, one minus the cosine (age)
    objective.margin = 110.0  # m, the KL in nats up to which generated images are pushed (introvae)
    objective.margin_offset = 0.0  # margin = mean KL of real images + this, in nats; 0 for a fixed margin (introvae)
    objective.hinge = "batch"  # "batch" (hinge of the mean) or "sample" (mean of hinges) (introvae)
    objective.update_order = "alternating"  # "alternating" (decoder's loss uses the updated encoder) or "simultaneous"
    objective.decoder_updates = 1  # decoder updates (and EMA updates) per encoder update, also in the warm-up
    objective.warmup_steps = 2_000  # number of first steps trained as a plain VAE
    objective.warmup_beta = 0.0  # weight of the reconstruction term in the warm-up; 0 for beta

    optim = config.optim = ml_collections.ConfigDict()
    optim.learning_rate = 2e-4  # Adam, both networks
    optim.beta1 = 0.9  # Adam's decay of the first moment
    optim.beta2 = 0.999  # Adam's decay of the second moment
    optim.epsilon = 1e-8  # Adam's term added to the root of the second moment
    optim.schedule = "constant"  # "constant", "cosine" (to 0 at the last step) or "step"
    optim.decay_steps = ()  # "step" only: the rate is multiplied by decay_factor at each of these steps
    optim.decay_factor = 0.1  # "step" only
    optim.clip_norm = 0.0  # clip each network's gradient to this global norm; 0 for no clipping
    optim.ema_decay = 0.999  # decay of the averaged (EMA) weights, which are used for sampling

    log = config.log = ml_collections.ConfigDict()
    log.every = 100  # steps between lines in metrics.jsonl, TensorBoard and the terminal
    log.stop_on_collapse = False  # end a run whose reconstructions have collapsed to one image
    log.pictures_every = 1_000  # steps between picture grids

    evaluation = config.eval = ml_collections.ConfigDict()
    evaluation.every = 0  # steps between evaluations of the averaged weights; 0 for none
    evaluation.metrics = ("fid10k",)  # metric specs, as for introvae_jax.evaluate --metrics
    evaluation.best = ""  # the metric that ranks checkpoints; "" for the first one
    evaluation.inception = ""  # file of Inception's weights; "" to download it once

    checkpoint = config.checkpoint = ml_collections.ConfigDict()
    checkpoint.every = 1_000  # steps between checkpoints
    checkpoint.keep = 2  # number of latest checkpoints to keep, besides the best one
    checkpoint.rollbacks = 0  # most restarts from the last checkpoint with a new RNG key after a non-finite number
    checkpoint.calibration_batches = 32  # batches that measure the stored BatchNorm statistics
    return config.lock()  # a misspelled key in an experiment raises an error
