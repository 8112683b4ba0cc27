package s3sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

const (
	// sdkTries is how often the SDK tries before it gives up a round: some 20
	// seconds of pauses, which is longer than S3 mostly takes to make room.
	sdkTries = 8

	// maxPause bounds the wait between tries, the SDK's and ours. It is also
	// how long writing may go on to rest when S3 is back.
	maxPause = 10 * time.Second

	// firstPause bounds the wait before the second try. A conflict with
	// another writer is over by then, and so is a lost connection.
	firstPause = 50 * time.Millisecond

	// directTimeout bounds a direct try, and roundTimeout a round of the SDK's.
	// A connection that died without a word would otherwise hold a paid answer
	// for a quarter of an hour. S3 answers in well under a second, and
	// the SDK's pauses add up to 45 seconds at worst.
	directTimeout = 15 * time.Second
	roundTimeout  = 90 * time.Second
)

// persist calls do with 0, 1, 2, … until it succeeds or fails for good, or ctx
// ends. Then the error has both the reason for the end and the last trouble
// that is not a part of it.
func persist(ctx context.Context, do func(ctx context.Context, n int) error) error {
	var trouble error
	for n := 0; ; n++ {
		err := round(ctx, n, do)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			trouble = err
			if !mendable(err) {
				return err
			}
		}
		if !pause(ctx, n) {
			return ended(ctx, trouble)
		}
	}
}

func round(ctx context.Context, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	return do(ctx, n)
}

func ended(ctx context.Context, trouble error) error {
	if trouble == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), trouble)
}

// pause waits before round n+1, and reports whether there is to be one. Half of
// the wait is random: writers that failed together must not return together.
func pause(ctx context.Context, n int) bool {
	half := min(firstPause<<min(n, 10), maxPause) / 2
	t := time.NewTimer(half + rand.N(half))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// mendable reports whether trying again may help. Whatever did not come from S3
// is taken to: networks, name servers and sources of credentials recover.
func mendable(err error) bool {
	if _, ok := errors.AsType[*retry.MaxAttemptsError](err); ok {
		return true // the SDK thought so as well
	}
	if _, ok := errors.AsType[hopeless](err); ok {
		return false
	}
	switch code := status(err); code {
	case 0, http.StatusConflict, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented:
		return false
	default:
		return code >= 500
	}
}

// hopeless is an error that did not come from S3 and will not go away.
type hopeless struct{ error }
