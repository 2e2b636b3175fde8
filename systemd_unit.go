// How is a unit of systemd a resource? It is started and stopped by jobs, as systemd.go does, and runs for as long as systemd
// says that it is active. Whether it serves anybody is its own to say (Type=notify), or a monitor's of another type.

package main

import (
	"context"
	"errors"
	"fmt"
)

// unitResource is a resource of type "systemd".
type unitResource struct{ runner }

func newUnitResource(c ResourceConfig, env resourceEnv) (resource, error) {
	r, err := chooseRunner(context.Background(), c, env, systemdRuns(), dialSystemd)
	return unitResource{r}, err
}

func noSystemd(unit string) error {
	return fmt.Errorf("unit %s needs systemd, which does not run here", unit)
}

func (u unitResource) Fit(ctx context.Context) error { return fitRunner(ctx, u.runner) }

// Start takes over also what runs already: the job then has nothing to do.
func (u unitResource) Start(ctx context.Context, _ startHint) error {
	if err := u.start(ctx); err != nil {
		return err
	}
	return u.settled(ctx, conditionRunning)
}

func (u unitResource) Stop(ctx context.Context) error {
	if err := u.stop(ctx); err != nil {
		return err
	}
	return u.settled(ctx, conditionStopped)
}

// settled reads back what a job has come to, for as long as another one is under way.
func (u unitResource) settled(ctx context.Context, want condition) error {
	var b pollBackoff
	for {
		_, c, err := u.probe(ctx)
		switch {
		case c == want:
			return nil
		case c == conditionStopped:
			return errors.New("the unit has ended by itself: a resource stays until it is stopped (with Type=oneshot: RemainAfterExit=yes)")
		case c == conditionFailed:
			return err
		case err == nil:
			err = fmt.Errorf("the unit is %s", c)
		}
		if !b.wait(ctx, nil) {
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

func (u unitResource) Monitor(ctx context.Context) (condition, error) {
	_, c, err := u.probe(ctx)
	return c, err
}

func (u unitResource) Watch(ctx context.Context, changed func(reason string)) { u.watch(ctx, changed) }
