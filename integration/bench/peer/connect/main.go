// Command connect is Redpanda Connect with the components that the benchmark's
// configuration names, all of them under the Apache licence. It is a module of its
// own: its dependencies are many, and none of upwell's.
package main

import (
	"context"

	// The parts: inputs, processors and outputs.
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	_ "github.com/redpanda-data/connect/v4/public/components/aws"
)

func main() {
	service.RunCLI(context.Background())
}
