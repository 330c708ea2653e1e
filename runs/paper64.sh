#!/bin/sh
# Train the models of 64 px and record paper64.yaml, in the folder above runs/. What is done is skipped, and what was
# interrupted is continued. On two CPU cores the denoiser takes weeks: run it on a GPU.
set -e
for model in judge extractor robust non_robust ddpm; do
  output=runs/models/paper64/$model
  if [ ! -e "$output.yaml" ] || [ -e "$output.checkpoint.pt" ]; then
    kind=classifier
    [ "$model" = ddpm ] && kind=ddpm
    gradscope train "$kind" --config "train/paper64/$model.yaml" "$@"
  fi
done
if [ -e runs/paper64.zarr ]; then
  gradscope record --resume runs/paper64.zarr
else
  gradscope record --config paper64.yaml
fi
gradscope evaluate runs/paper64.zarr
gradscope report runs/paper64.zarr --html runs/paper64.html
