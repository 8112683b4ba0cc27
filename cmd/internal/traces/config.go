package traces

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// otlp is what the names of the exporter's variables begin with. Each is there for all
// signals, and with TRACES_ after this for traces alone, which comes first.
const otlp = "OTEL_EXPORTER_OTLP_"

// New returns what the environment asks for, or nil if it asks for no traces: it does
// with OTEL_TRACES_EXPORTER=otlp, or with the address of a collector in
// OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT unless
// OTEL_TRACES_EXPORTER is none, and never with OTEL_SDK_DISABLED=true. What is
// malformed, or asks for something that is not done here, is an error that says what
// to change.
//
// These are honoured as OpenTelemetry defines them: OTEL_EXPORTER_OTLP_HEADERS,
// _TIMEOUT, _COMPRESSION, _CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY, _INSECURE and
// _PROTOCOL, which has to be http/protobuf; OTEL_SERVICE_NAME (default: upwell) and
// OTEL_RESOURCE_ATTRIBUTES; OTEL_TRACES_SAMPLER and _ARG (default: what the sender of
// a message decided, and everything else); OTEL_BSP_*; and OTEL_SPAN_* and
// OTEL_ATTRIBUTE_* for limits. OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true
// adds prompts and answers.
//
// getenv decides what is on and whether it is well-formed. The SDK and its exporter
// read the process's own environment, which is to say the same.
func New(ctx context.Context, getenv func(string) string, version string) (*Traces, error) {
	env := environment(getenv)
	on, err := env.on()
	if !on || err != nil {
		return nil, err
	}
	sampler, err := env.sampler()
	if err := errors.Join(err, env.check()); err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "upwell"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // which comes before these
	if err != nil {
		return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES: want name=value, with commas between them")
	}
	out, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	e := &exporter{SpanExporter: out, secrets: env.secrets()}
	t := newTraces(sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(counter{e}), sdktrace.WithBatcher(e), sdktrace.WithResource(about), sdktrace.WithSampler(sampler), sdktrace.WithIDGenerator(ids{}),
	), version, env.is("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"))
	t.exporter = e
	return t, nil
}

// An environment looks up variables.
type environment func(string) string

func (env environment) value(name string) string { return strings.TrimSpace(env(name)) }

// is reports whether a variable is true.
func (env environment) is(name string) bool { return strings.EqualFold(env.value(name), "true") }

// exporter calls f with the exporter's variables of that name that are set, with what
// holds for all signals first.
func (env environment) exporter(name string, f func(name, value string) error) error {
	var errs []error
	for _, full := range []string{otlp + name, otlp + "TRACES_" + name} {
		if v := env.value(full); v != "" {
			errs = append(errs, f(full, v))
		}
	}
	return errors.Join(errs...)
}

// on reports whether traces are asked for.
func (env environment) on() (bool, error) {
	if env.is("OTEL_SDK_DISABLED") {
		return false, nil
	}
	switch v := strings.ToLower(env.value("OTEL_TRACES_EXPORTER")); v {
	case "otlp":
		return true, nil
	case "none":
		return false, nil
	case "":
		on := false
		err := env.exporter("ENDPOINT", func(string, string) error { on = true; return nil })
		return on, err
	default:
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: want otlp, or none", cut(v, 40))
	}
}

// check finds what the exporter would pass over without a word, or would write to
// standard error, secrets included.
func (env environment) check() error {
	return errors.Join(
		env.protocol(),
		env.exporter("ENDPOINT", func(name, v string) error {
			if u, err := url.Parse(v); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return fmt.Errorf("%s: want a URL, such as http://localhost:4318", name)
			}
			return nil
		}),
		env.exporter("HEADERS", func(name, v string) error { return wellFormed(name, v) }),
		env.exporter("TIMEOUT", func(name, v string) error {
			if n, err := strconv.Atoi(v); err != nil || n < 0 {
				return fmt.Errorf("%s=%s: want milliseconds, such as 10000", name, cut(v, 40))
			}
			return nil
		}),
		env.exporter("COMPRESSION", func(name, v string) error {
			if v != "gzip" && v != "none" {
				return fmt.Errorf("%s=%s: want gzip or none", name, cut(v, 40))
			}
			return nil
		}),
		env.exporter("CERTIFICATE", readable), env.exporter("CLIENT_CERTIFICATE", readable), env.exporter("CLIENT_KEY", readable),
		wellFormed("OTEL_RESOURCE_ATTRIBUTES", env.value("OTEL_RESOURCE_ATTRIBUTES")),
	)
}

// protocol checks the one that holds for traces.
func (env environment) protocol() error {
	var name, v string
	_ = env.exporter("PROTOCOL", func(n, s string) error { name, v = n, s; return nil }) // there is none
	if v == "" || v == "http/protobuf" {
		return nil
	}
	return fmt.Errorf("%s=%s: want http/protobuf, and the collector's port for it, most often 4318, in OTEL_EXPORTER_OTLP_ENDPOINT", name, cut(v, 40))
}

// wellFormed checks a list of names and values. It does not say what is in it.
func wellFormed(name, list string) error {
	if list == "" {
		return nil
	}
	i := 0
	for entry := range strings.SplitSeq(list, ",") {
		i++
		key, v, ok := strings.Cut(entry, "=")
		key = strings.TrimSpace(key)
		if _, err := url.PathUnescape(v); !ok || key == "" || err != nil || strings.ContainsAny(key, " \t\":;") {
			return fmt.Errorf("%s: entry %d is not name=value: want such ones with commas between them, and %%2C for a comma within", name, i)
		}
	}
	return nil
}

func readable(name, file string) error {
	if _, err := os.ReadFile(file); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// secrets returns the values of headers, whole and in words, with the longest first.
func (env environment) secrets() (list []string) {
	_ = env.exporter("HEADERS", func(_, v string) error { // there is none
		for entry := range strings.SplitSeq(v, ",") {
			_, raw, _ := strings.Cut(entry, "=")
			plain, _ := url.PathUnescape(raw) // it was looked at
			list = append(list, strings.TrimSpace(raw), strings.TrimSpace(plain))
			list = append(list, strings.Fields(plain)...)
		}
		return nil
	})
	list = slices.DeleteFunc(list, func(s string) bool { return len(s) < 8 }) // no secret, but a word such as Bearer
	slices.SortFunc(list, func(a, b string) int { return len(b) - len(a) })
	return list
}

// sampler returns the one that is asked for.
func (env environment) sampler() (sdktrace.Sampler, error) {
	arg := 1.0
	name := strings.ToLower(env.value("OTEL_TRACES_SAMPLER"))
	if v := env.value("OTEL_TRACES_SAMPLER_ARG"); v != "" && strings.HasSuffix(name, "traceidratio") {
		var err error
		if arg, err = strconv.ParseFloat(v, 64); err != nil || !(arg >= 0 && arg <= 1) {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG=%s: want the part of jobs to trace, from 0 to 1", cut(v, 40))
		}
	}
	root, parents := strings.CutPrefix(cmp.Or(name, "parentbased_always_on"), "parentbased_")
	var s sdktrace.Sampler
	switch root {
	case "always_on":
		s = sdktrace.AlwaysSample()
	case "always_off":
		s = sdktrace.NeverSample()
	case "traceidratio":
		s = sdktrace.TraceIDRatioBased(arg)
	default:
		return nil, fmt.Errorf("OTEL_TRACES_SAMPLER=%s: want always_on, always_off, traceidratio, or one of them after parentbased_", cut(name, 40))
	}
	if parents {
		return sdktrace.ParentBased(s), nil
	}
	return s, nil
}
