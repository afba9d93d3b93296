// Command pause holds a pod's namespaces open: it does nothing until it is told to stop.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// As process 1 of a pod it inherits orphans. With SIGCHLD ignored the kernel reaps them.
	signal.Ignore(syscall.SIGCHLD)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
