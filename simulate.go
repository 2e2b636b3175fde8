// What would happen if? Runs steps on a copy of the live state; touches nothing.

package main

import "errors"

// simulate tells, as text for the operator, what the cluster with this state would do in each step.
// The steps have passed parseSteps.
func simulate(state []byte, steps []string) (string, error) {
	return "", errors.New("to be written")
}
