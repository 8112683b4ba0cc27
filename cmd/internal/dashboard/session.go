package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// mostSessions bounds the people who are signed in. The one who came first has to
	// do it again.
	mostSessions = 64

	// sessionFor is how long a session lasts. A browser forgets it when it is closed.
	sessionFor = 24 * time.Hour

	// A stranger has guessesAtOnce guesses, and another one every guessEvery. A token
	// of 40 random bits then outlasts a century of guessing from a thousand places.
	guessesAtOnce = 5
	guessEvery    = 2 * time.Second

	// mostStrangers bounds the places that guesses are counted of. All others share
	// what one has.
	mostStrangers = 1024
)

// sessions are the people who have shown the token. The zero value is nobody.
type sessions struct {
	mu    sync.Mutex
	since map[[sha256.Size]byte]time.Time // by the SHA-256 of what the cookie says
}

// open returns what the cookie of a new one says.
func (s *sessions) open() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since == nil {
		s.since = make(map[[sha256.Size]byte]time.Time)
	}
	if len(s.since) == mostSessions {
		var first [sha256.Size]byte
		var at time.Time
		for k, since := range s.since {
			if at.IsZero() || since.Before(at) {
				first, at = k, since
			}
		}
		delete(s.since, first)
	}
	word := rand.Text()
	s.since[sha256.Sum256([]byte(word))] = time.Now()
	return word
}

func (s *sessions) has(word string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := sha256.Sum256([]byte(word))
	since, ok := s.since[k]
	if ok && time.Since(since) > sessionFor {
		delete(s.since, k)
		return false
	}
	return ok
}

// guesses bound how fast a token can be guessed. The zero value is ready to use.
type guesses struct {
	mu   sync.Mutex
	left map[string]*allowance // by where they come from
	rest allowance             // of all others together
}

// An allowance is what somebody has left. It grows back.
type allowance struct {
	spent float64
	at    time.Time
}

// take takes a guess, if there is one left. It is taken before the guess is looked
// at, so that many at once are counted as well; a right one is given back.
func (g *guesses) take(from string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	a := g.of(from, now)
	a.spent = max(0, a.spent-now.Sub(a.at).Seconds()/guessEvery.Seconds())
	a.at = now
	if a.spent > guessesAtOnce-1 {
		return false
	}
	a.spent++
	return true
}

func (g *guesses) giveBack(from string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.of(from, time.Now())
	a.spent = max(0, a.spent-1)
}

// of returns somebody's allowance. g.mu must be held.
func (g *guesses) of(from string, now time.Time) *allowance {
	if a, ok := g.left[from]; ok {
		return a
	}
	if len(g.left) >= mostStrangers {
		for k, a := range g.left { // those who have all of theirs again need not be known
			if now.Sub(a.at) > guessesAtOnce*guessEvery {
				delete(g.left, k)
			}
		}
		if len(g.left) >= mostStrangers {
			return &g.rest
		}
	}
	if g.left == nil {
		g.left = make(map[string]*allowance)
	}
	a := &allowance{at: now}
	g.left[from] = a
	return a
}
