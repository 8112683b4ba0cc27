package traces_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upwell/cmd/internal/traces"
)

const secret = "swordfish-0123456789"

func TestNew(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tt := range []struct {
		name string
		env  []string
		want string // of the error; - for traces, and empty for none
	}{
		{"nothing", nil, ""},
		{"otlp", []string{"OTEL_TRACES_EXPORTER=otlp"}, "-"},
		{"none", []string{"OTEL_TRACES_EXPORTER=none", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"}, ""},
		{"an endpoint", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"}, "-"},
		{"an endpoint for traces", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://collector.test/v1/traces"}, "-"},
		{"an endpoint for metrics", []string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:4318"}, ""},
		{"disabled", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_SDK_DISABLED=true"}, ""},
		{"not disabled", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_SDK_DISABLED=yes"}, "-"},
		{"other variables alone", []string{"OTEL_SERVICE_NAME=x", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_TRACES_SAMPLER=x"}, ""},
		{"another exporter", []string{"OTEL_TRACES_EXPORTER=zipkin"}, "OTEL_TRACES_EXPORTER=zipkin: want otlp, or none"},
		{"gRPC", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: want http/protobuf"},
		{"JSON", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json: want http/protobuf"},
		{"gRPC for the others", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"}, "-"},
		{"an endpoint without a scheme", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + secret + ":4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: want a URL, such as http://localhost:4318"},
		{"headers", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20" + secret + ",x=y"}, "-"},
		{"malformed headers", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_HEADERS=a=b,authorization: " + secret}, "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not name=value"},
		{"badly escaped headers", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=authorization=%zz" + secret}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS: entry 1 is not name=value"},
		{"a timeout with a unit", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TIMEOUT=10s"}, "OTEL_EXPORTER_OTLP_TIMEOUT=10s: want milliseconds"},
		{"compression", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip"}, "-"},
		{"unknown compression", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_COMPRESSION=zstd"}, "OTEL_EXPORTER_OTLP_COMPRESSION=zstd: want gzip or none"},
		{"no certificate", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_CERTIFICATE=" + missing}, "OTEL_EXPORTER_OTLP_CERTIFICATE: open "},
		{"attributes", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=prod,team=a%2Cb"}, "-"},
		{"malformed attributes", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_RESOURCE_ATTRIBUTES=prod"}, "OTEL_RESOURCE_ATTRIBUTES: entry 1 is not name=value"},
		{"a ratio", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01"}, "-"},
		{"always", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=always_on", "OTEL_TRACES_SAMPLER_ARG=endpoint=x"}, "-"},
		{"a percentage", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=5"}, "OTEL_TRACES_SAMPLER_ARG=5: want the part of jobs to trace, from 0 to 1"},
		{"no number", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=NaN"}, "OTEL_TRACES_SAMPLER_ARG=NaN: want"},
		{"a remote sampler", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=jaeger_remote"}, "OTEL_TRACES_SAMPLER=jaeger_remote: want always_on"},
		{"half a sampler", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=parentbased_"}, "OTEL_TRACES_SAMPLER=parentbased_: want always_on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, tt.env...)
			tr, err := traces.New(t.Context(), os.Getenv, "1.2.3")
			got := ""
			switch {
			case err != nil:
				got = err.Error()
			case tr != nil:
				got = "-"
			}
			if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("New with %q = %q, want %q", tt.env, got, tt.want)
			}
			if strings.Contains(got, secret) {
				t.Errorf("the error has the secret in it: %s", got)
			}
			if err := tr.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown of one that has made no spans = %v, want nil", err)
			}
		})
	}
}

// setenv has these variables in the environment, and none of OpenTelemetry's beside.
func setenv(t *testing.T, vars ...string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}
