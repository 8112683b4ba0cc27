package sinktest

import (
	"strconv"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

var conditionChecks = []check{
	{"If-None-Match/first wins", onceFirst},
	{"If-None-Match/after delete", onceAgain},
	{"If-None-Match/race", onceRace},
	{"If-None-Match/not an asterisk", onceOther},
	{"If-Match/right", matchRight},
	{"If-Match/wrong", matchWrong},
	{"If-Match/missing object", matchMissing},
	{"If-Match/race", matchRace},
	{"If-Match/same body again", matchSame},
}

func onceFirst(f *folder) {
	f.put("a", "first", absent)
	for range 2 {
		_, err := f.tryPut("a", "second", absent)
		f.answers(err, 412, "PreconditionFailed", "storing a second time")
	}
	// Not even what is there already.
	_, err := f.tryPut("a", "first", absent)
	f.answers(err, 412, "PreconditionFailed", "storing the same a second time")
	f.holds("a", "first")
}

func onceAgain(f *folder) {
	f.put("a", "first", absent)
	f.delete("a")
	f.put("a", "second", absent)
	f.holds("a", "second")
}

const (
	racers = 16
	rounds = 8
)

// race has racers store different bodies with one condition, and complains
// unless exactly one of them does, which is the one that is there then. S3 may
// answer 409 to those who came while another was being stored.
func (f *folder) race(name string, with putting) {
	var wg sync.WaitGroup
	errs := make([]error, racers)
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			_, errs[i] = f.tryPut(name, name+strconv.Itoa(i), with)
		})
	}
	close(start)
	wg.Wait()
	winners, last := 0, 0
	for i, err := range errs {
		switch status := statusOf(err); {
		case err == nil:
			winners++
			last = i
		case status != 412 && status != 409:
			f.Errorf("a loser got %v, want 412", err)
		}
	}
	if winners != 1 {
		f.Errorf("%d of %d racers won, want 1", winners, racers)
		return
	}
	f.holds(name, name+strconv.Itoa(last))
}

func onceRace(f *folder) {
	for i := range rounds {
		f.race("key-"+strconv.Itoa(i)+"-", absent)
	}
}

func onceOther(f *folder) {
	f.put("a", "first")
	_, err := f.tryPut("a", "second", func(in *s3.PutObjectInput) { in.IfNoneMatch = new(etagOf("first")) })
	if err == nil {
		f.Errorf("If-None-Match with an ETag was carried out, want it refused")
	}
	f.holds("a", "first")
}

func matchRight(f *folder) {
	first := f.put("a", "first")
	f.put("a", "second", matching(text(first.ETag)))
	f.holds("a", "second")
}

func matchWrong(f *folder) {
	first := f.put("a", "first")
	f.put("a", "second")
	_, err := f.tryPut("a", "third", matching(text(first.ETag)))
	f.answers(err, 412, "PreconditionFailed", "replacing what has been replaced")
	f.holds("a", "second")
}

func matchMissing(f *folder) {
	_, err := f.tryPut("a", "x", matching(etagOf("x")))
	f.answers(err, 404, "NoSuchKey", "replacing what is not there")
	f.lacks("a")
}

// matchRace has racers replace one version, one round after the other.
func matchRace(f *folder) {
	etag := text(f.put("a", "first").ETag)
	for range rounds {
		f.race("a", matching(etag))
		etag = text(f.head("a").ETag)
		if etag == etagOf("first") {
			f.Fatalf("nobody replaced it")
		}
		f.put("a", "between"+etag)
		etag = text(f.head("a").ETag)
	}
}

// matchSame replaces a version by itself: its ETag stays good.
func matchSame(f *folder) {
	etag := text(f.put("a", "same").ETag)
	for range 2 {
		f.put("a", "same", matching(etag))
	}
	f.holds("a", "same")
}
