// Command upwell runs prompt jobs in bulk: from Amazon SQS through Amazon
// Bedrock's mantle endpoint to Amazon S3, as fast as the account's capacity
// allows and no faster.
//
//	upwell demo     see the whole of it on this machine, with nothing to set up
//	upwell run      run documents, a table or a batch file from this machine
//	upwell worker   work on a queue until told to stop
//	upwell submit   queue documents, a table or a batch file as a run
//	upwell status   say how far a run is
//	upwell dead     list, show and redrive dead letters
//	upwell verify   say whether a run's account balances
//	upwell export   write a run's results as JSON lines, CSV or Parquet
//	upwell template check what a template makes of an input
//	upwell doctor   check what a worker needs, and say what to fix
//	upwell why      say what holds a worker back, and what would help
//	upwell health   ask a worker how it is
//	upwell local    serve SQS, S3 and a simulated endpoint on loopback
//
// Settings are flags, then UPWELL_ variables, then a file given with --config.
// The exit code is 0 when all is done, 1 when some jobs failed, 2 for a command
// that cannot be understood, 3 for a configuration or credentials that do not
// work, and 130 when it was interrupted.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"upwell/cmd/internal/dead"
	"upwell/cmd/internal/progress"
	"upwell/jobs"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitInterrupted = 130
)

// cli is the command line: every flag, its variable, its default and its help.
type cli struct {
	ConfigFile string           `name:"config" type:"existingfile" placeholder:"FILE" env:"UPWELL_CONFIG" help:"JSON file with settings, named as the flags are, with underscores."`
	LogLevel   string           `enum:"debug,info,warn,error" default:"${log_level}" env:"UPWELL_LOG_LEVEL" help:"Least level to log: debug, info, warn or error."`
	LogFormat  string           `enum:"auto,text,json" default:"auto" env:"UPWELL_LOG_FORMAT" help:"Log as text or json; auto is text on a terminal and json elsewhere."`
	Version    kong.VersionFlag `help:"Print the version."`

	Demo     demoCmd     `cmd:"" help:"See the whole of it on this machine: embedded SQS and S3, a simulated endpoint, a contract review."`
	Run      runCmd      `cmd:"" help:"Run documents, a table or an OpenAI batch file from this machine; stop it and start it again, and it goes on where it was."`
	Worker   workerCmd   `cmd:"" help:"Work on a queue: SQS to the endpoint to S3, until told to stop."`
	Submit   submitCmd   `cmd:"" help:"Queue documents, a table or an OpenAI batch file as a run."`
	Status   statusCmd   `cmd:"" help:"Say how far a run is: answered, failed, queued, rate, tokens, cost."`
	Verify   verifyCmd   `cmd:"" help:"Say whether a run's account balances: submitted, answered, failed, queued; and what is missing or double."`
	Export   exportCmd   `cmd:"" help:"Write a run's results as JSON lines, CSV or Parquet: in input order, each job once."`
	Dead     deadCmd     `cmd:"" help:"Look at dead letters, and send them back."`
	Template templateCmd `cmd:"" help:"Check a template: what it makes of an input, and what is wrong with it."`
	Doctor   doctorCmd   `cmd:"" help:"Check credentials, endpoint, model, queue, bucket and permissions, and say what to fix."`
	Why      whyCmd      `cmd:"" help:"Say what holds a worker on this machine back right now, and what would help."`
	Health   healthCmd   `cmd:"" help:"Ask a worker on this machine whether it lives, for the health checks of containers."`
	Local    localCmd    `cmd:"" help:"Serve SQS, S3 and a simulated endpoint on loopback, for any AWS client."`
}

// env is what a verb may touch of the world outside.
type env struct {
	stdin    io.Reader
	stdout   *output
	stderr   io.Writer
	getenv   func(string) string
	terminal bool // stderr is one
	log      *slog.Logger
}

// An output is standard output, which remembers that it could not be written to: no verb
// has done what it was asked for if its answer is lost. A reader who has seen enough has
// lost nothing.
type output struct {
	to  *os.File
	mu  sync.Mutex
	err error
}

// Fd returns the file's descriptor.
func (o *output) Fd() uintptr { return o.to.Fd() }

// Write implements io.Writer.
func (o *output) Write(text []byte) (int, error) {
	n, err := o.to.Write(text)
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = err
	}
	return n, err
}

// failure is an error with the exit code it deserves.
type failure struct {
	code int
	err  error // nil when everything has been said
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit %d", f.code)
	}
	return f.err.Error()
}
func (f *failure) Unwrap() error { return f.err }

func fail(code int, err error) error {
	if err == nil {
		return nil
	}
	return &failure{code, err}
}

func main() {
	// A reader that has seen enough, such as head, is told to a verb as an error of
	// writing, so that it lets go of what it holds.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go endByTheSecond(signals) // the first one drains
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	code := run(ctx, os.Args[1:], env{
		stdin: os.Stdin, stdout: &output{to: os.Stdout}, stderr: progress.NewConsole(os.Stderr, terminal, os.Getenv), getenv: os.Getenv,
		terminal: terminal,
	})
	stop()
	os.Exit(code)
}

// endByTheSecond has the second signal end the process at once, with a last word.
func endByTheSecond(signals <-chan os.Signal) {
	<-signals
	s := <-signals
	fmt.Fprintln(os.Stderr, "upwell: ended at once: calls in flight are abandoned, and may be paid for; what was answered is stored")
	code := exitInterrupted
	if s == syscall.SIGTERM {
		code = 128 + int(syscall.SIGTERM)
	}
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, e env) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c, kong.Name("upwell"), kong.Writers(e.stdout, e.stderr),
		kong.Description(description), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"version": version(), "log_level": "info", "demo_capacity": demoCapacity, "http": defaultHTTP, "input_help": inputHelp, "tiers": strings.Join(jobs.ServiceTiers, ",")}, kong.Exit(func(code int) { exited = code }),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)))
	if err != nil {
		panic(err) // the struct above is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if err := useConfigFile(parser, args, e.getenv); err != nil {
		fmt.Fprintln(e.stderr, "upwell:", err)
		return exitUsage
	}
	k, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "upwell: %v\ntry: upwell %s--help\n", err, verbOf(parser, args))
		return exitUsage
	}
	e.log = logger(e, c.LogFormat, c.LogLevel)
	k.BindTo(ctx, (*context.Context)(nil))
	return report(e, k.Run(e))
}

const description = `Bulk prompts through Amazon Bedrock's mantle endpoint: jobs from SQS, results to S3, paced to the capacity there is.

Start with: upwell demo`

// verbOf returns the first argument that is a verb, and a space.
func verbOf(parser *kong.Kong, args []string) string {
	for _, a := range args {
		for _, verb := range parser.Model.Children {
			if verb.Name == a {
				return a + " "
			}
		}
	}
	return ""
}

// report tells the user how it ended and returns the exit code.
func report(e env, err error) int {
	if err = cmp.Or(err, e.stdout.err); err == nil {
		return exitDone
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{exitConfig, err}
	}
	switch {
	case errors.Is(f.err, syscall.EPIPE):
		return exitFailed
	case f.err != nil:
		fmt.Fprintln(e.stderr, "upwell:", clean(f.err.Error()))
	}
	return f.code
}

// clean returns a text of some lines without what a terminal might obey: an error may
// quote what strangers have sent.
func clean(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = dead.Clean(strings.ReplaceAll(l, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

func logger(e env, format, level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // the enum allows only good ones
	opts := &slog.HandlerOptions{Level: l}
	if format == "text" || format == "auto" && e.terminal {
		return slog.New(slog.NewTextHandler(e.stderr, opts))
	}
	return slog.New(slog.NewJSONHandler(e.stderr, opts))
}

// stamped is the version that a release build sets with -ldflags -X.
var stamped string

func version() string {
	if stamped != "" {
		return stamped
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return info.Main.Version
}
