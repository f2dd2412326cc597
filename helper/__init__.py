"""The service that holds masks: it releases only the noisy sum of the masks of a closed set."""
