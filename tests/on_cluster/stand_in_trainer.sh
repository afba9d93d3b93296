#!/bin/sh
# Plays the stages. The run's spec directs it: the WordPress address is http://play/<train seconds>/<manifest sha256>.
# In a training on several nodes each waits for the first one's name; one of 77 seconds runs out of memory on node 1.
# One of 76 makes a model with less recall, one of 78 runs out of memory until it is given smaller steps, and one of 79 hangs
# at its first attempt after a step. A Service named news makes another dataset. A pod that shares a sweep says so with its steps.
# Parts, as the address goes on: STAGE/held waits for a Service named go, STAGE/lingers too and ends slowly when it is told
# to stop, STAGE/eats takes more memory than it may.
stage=$1
field() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" /etc/finetune/run.json | head -n 1; }
url=$(field url); bucket=$(field bucket); prefix=$(field prefix)
rest=${url#http://play/}; seconds=${rest%%/*}; rest=${rest#*/}; sha=${rest%%/*}; part=${rest#*/}
rank=${PET_NODE_RANK:-0}
say() { printf '%s' "$1" > /dev/termination-log; }
trap 'exit 143' TERM
play_part() {
  case $part in
  "$stage"/held) until getent hosts go > /dev/null; do sleep 1 & wait $!; done ;;
  "$stage"/lingers) trap 'sleep 20; exit 32' TERM; until getent hosts go > /dev/null; do sleep 1 & wait $!; done ;;
  "$stage"/eats) eaten=$(head -c 400000000 /dev/zero | tr '\0' x) ;;
  esac
}
[ -n "$WORDPRESS_PASSWORD_BLOG$AWS_ACCESS_KEY_ID" ] || { say "no credentials"; exit 10; }
case $stage in
dataset)
  play_part
  echo '{"finetune":"progress","stage":"dataset","step":1,"totalSteps":1,"message":"reading posts"}'
  letter=d changed=
  ! getent hosts news > /dev/null || letter=e
  digest=$(printf "$letter%.0s" 0 1 2 3 4 5 6 7 8 9 a b c d e f 0 1 2 3 4 5 6 7 8 9 a b c d e f 0 1 2 3 4 5 6 7 8 9 a b c d e f 0 1 2 3 4 5 6 7 8 9 a b c d e f)
  before=$(field datasetDigest)
  [ -z "$before" ] || { changed='"changedDocuments":30,'; [ "$before" != "$digest" ] || changed='"changedDocuments":0,'; }
  say "{\"stage\":\"dataset\",\"dataset\":{$changed\"digest\":\"$digest\",\"runKey\":\"$digest\",\"baseModel\":\"s3://models/base/\",\"documents\":44,\"trainingExamples\":8,\"evaluationExamples\":4}}" ;;
train)
  trap 'echo "checkpoint saved"; say "{\"stage\":\"train\",\"exitCode\":32,\"message\":\"checkpoint saved\"}"; exit 32' TERM
  play_part
  if [ "${PET_NNODES:-1}" -gt 1 ]; then
    until getent hosts "$PET_MASTER_ADDR" > /dev/null; do sleep 1 & wait $!; done
    echo "node $rank of $PET_NNODES found $PET_MASTER_ADDR"
    [ "$rank/$seconds" != 1/77 ] || { sleep 3; say '{"stage":"train","exitCode":30,"message":"out of memory"}'; exit 30; }
  fi
  [ -z "$FINETUNE_TRAINING_OVERLAY" ] || { echo "trains with $FINETUNE_TRAINING_OVERLAY"; seconds=2; }
  [ "$seconds" != 76 ] || seconds=1
  [ "$seconds" != 78 ] || { say '{"stage":"train","exitCode":30,"message":"out of memory"}'; exit 30; }
  if [ "$seconds" = 79 ]; then
    seconds=2
    case $(hostname) in *-train-0-*)
      echo '{"finetune":"progress","stage":"train","step":1,"totalSteps":9,"loss":1.5}'
      sleep 600 & wait $!
    esac
  fi
  i=0 share=
  [ -z "$JOB_COMPLETION_INDEX" ] || share="\"share\":{\"fromStep\":0,\"stepsOfAll\":$((5 * seconds))},"
  [ -z "$PET_NNODES" ] || share=
  while [ "$i" -lt "$seconds" ]; do
    i=$((i + 1))
    echo "{\"finetune\":\"progress\",\"stage\":\"train\",$share\"step\":$i,\"totalSteps\":$seconds,\"loss\":1.5,\"etaSeconds\":$((seconds - i))}"
    sleep 1 & wait $!
  done
  [ "$rank" != 0 ] || say '{"stage":"train","training":{"steps":9,"finalLoss":1.5}}' ;;
package)
  play_part
  say "{\"stage\":\"package\",\"model\":{\"uri\":\"s3://$bucket/$prefix\",\"manifestSha256\":\"$sha\",\"sizeBytes\":7}}" ;;
evaluate)
  play_part
  recall=0.9; [ "$seconds" != 76 ] || recall=0.4
  say "{\"stage\":\"evaluate\",\"evaluation\":{\"passed\":true,\"gate\":\"passed\",\"metrics\":[{\"name\":\"answer_recall\",\"base\":0.1,\"new\":$recall}],\"reportUri\":\"s3://$bucket/$prefix/report.html\",\"readerQuestions\":[{\"question\":\"What does the wheel do?\",\"mustContain\":[\"turns\"]}]}}" ;;
esac
