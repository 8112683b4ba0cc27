package input

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"

	"golang.org/x/sync/semaphore"

	"upwell/cmd/internal/document"
)

// A source is documents or tables, and what makes jobs of them.
type source struct {
	store
	name   string
	opts   Options
	tables bool
	bytes  int64

	loaded  *semaphore.Weighted // has the bytes of the documents that are in memory
	reading chan struct{}       // has a token for each document that is read at the same time
	warnings
}

// newSource looks at what there is.
func newSource(ctx context.Context, st store, opts Options) (*source, error) {
	switch opts.Format {
	case "", formatCSV, formatJSONL, formatParquet:
	default:
		return nil, fmt.Errorf("format %q: want %s, %s or %s", opts.Format, formatCSV, formatJSONL, formatParquet)
	}
	if opts.Documents == nil {
		opts.Documents = new(document.Reader)
	}
	if len(opts.Key) == 0 {
		opts.Key = opts.Template.Key()
	}
	s := &source{store: st, name: st.title(), opts: opts, loaded: semaphore.NewWeighted(aheadBytes), reading: make(chan struct{}, readers())}
	if err := s.survey(ctx); err != nil {
		return nil, err
	}
	opts.Progress.Total.Store(s.bytes)
	return s, nil
}

// survey finds out whether there are documents or tables.
func (s *source) survey(ctx context.Context) error {
	var documents, tables, others group
	for e, err := range s.list(ctx) {
		if err != nil {
			return err
		}
		switch kind, why := s.classify(e); {
		case why == unnamed:
		case why != "":
			others.add(e, why)
		case kind == formatDocument:
			documents.add(e, "")
		default:
			tables.add(e, "")
		}
	}
	switch {
	case documents.n > 0 && tables.n > 0:
		return fmt.Errorf("%s holds both documents (%s) and tables (%s): give one kind, for example the glob '%s'",
			s.name, &documents, &tables, s.place("**/*"+path.Ext(cmp.Or(documents.first...))))
	case documents.n+tables.n == 0 && others.n > 0:
		return fmt.Errorf("%s holds nothing that can be read, only %s: want %s", s.name, &others, readable)
	case documents.n+tables.n == 0:
		return fmt.Errorf("%s: want %s", s.nothing(), readable)
	}
	if others.n > 0 {
		s.warn("%s: left out %s", s.name, &others)
	}
	s.tables, s.bytes = tables.n > 0, documents.bytes+tables.bytes
	return nil
}

const (
	readable = "documents (.txt .md .html .docx .pdf .png .jpg), tables (.csv .tsv .jsonl .parquet, the text ones also as .gz or .zst), or --format for files with other names"

	// unnamed is why a file is left out that nobody misses, such as _SUCCESS.
	unnamed = "a mark of a program"
)

// classify says what a file is, or why it is left out. A single one is taken for a
// table of some sort when its name says nothing.
func (s *source) classify(e entry) (kind, why string) {
	kind = kindOf(e.path)
	switch {
	case e.why != "":
		return "", e.why
	case !s.several():
		return cmp.Or(s.opts.Format, kind, formatCSV), ""
	case kind == "" && strings.HasPrefix(path.Base(e.path), "_"):
		return "", unnamed
	case kind != formatDocument && (strings.HasPrefix(e.path, "_") || strings.Contains(e.path, "/_")):
		return "", "named _ like what Spark and Hive do not read"
	case s.opts.Format != "" && kind != "" && kind != s.opts.Format:
		return "", "not " + s.opts.Format
	case s.opts.Format != "":
		return s.opts.Format, ""
	case kind == "":
		return "", "not of a type that can be read"
	}
	return kind, ""
}

// files yields the files that survey counted.
func (s *source) files(ctx context.Context) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		for e, err := range s.list(ctx) {
			if _, why := s.classify(e); err == nil && why != "" {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// A group counts files, and remembers the first.
type group struct {
	n     int
	bytes int64
	first []string
}

func (g *group) add(e entry, why string) {
	g.n++
	g.bytes += e.size
	if len(g.first) == 5 {
		return
	}
	if name := printable(e.path); why == "" {
		g.first = append(g.first, name)
	} else {
		g.first = append(g.first, fmt.Sprintf("%s (%s)", name, why))
	}
}

// String names the group's files, as far as it remembers them.
func (g *group) String() string {
	list := strings.Join(g.first, ", ")
	if g.n > len(g.first) {
		list += ", …"
	}
	return plural(g.n, "file") + ": " + list
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// warnings are lines about what is left out. One goroutine adds to them at a time.
type warnings struct {
	lines []string
	left  leftOut
}

// leftOut counts what is left out of each kind, and what else there is to say of
// documents.
type leftOut struct {
	documents, rows, notes int
}

func (w *warnings) warn(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// leave notes a document that cannot be read.
func (w *warnings) leave(place, reason string) {
	if w.left.documents++; w.left.documents <= listed {
		w.warn("%s: left out: %s", place, reason)
	}
}

// note notes what may be wrong with a document that is submitted.
func (w *warnings) note(place, warning string) {
	if w.left.notes++; w.left.notes <= listed {
		w.warn("%s: %s", place, warning)
	}
}

// all returns the warnings, and how many there would have been more.
func (w *warnings) all() []string {
	if more := w.left.documents - listed; more > 0 {
		w.warn("… and %s left out", plural(more, "more document"))
	}
	if more := w.left.notes - listed; more > 0 {
		w.warn("… and %s like these", plural(more, "more warning"))
	}
	if w.left.rows > 0 {
		w.warn("%s left out", plural(w.left.rows, "empty row"))
	}
	return w.lines
}

// errStop ends a loop whose reader has seen enough.
var errStop = errors.New("enough")
