// Attach a module to a deployment, classify an image, and detach the module again.
//
//	go run . DEPLOYMENT MODULE IMAGE
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	pnc "example.org/team/pnc"
)

func main() {
	deployment, module, image := os.Args[1], os.Args[2], os.Args[3]
	settings := pnc.NewConfiguration()
	settings.Servers = pnc.ServerConfigurations{{URL: os.Getenv("PNC_URL")}}
	if key := os.Getenv("PNC_KEY"); key != "" {
		settings.AddDefaultHeader("Authorization", "Bearer "+key)
	}
	service, ctx := pnc.NewAPIClient(settings).DeploymentsAPI, context.Background()

	if _, _, err := service.AttachModule(ctx, deployment, module).Execute(); err != nil {
		log.Fatal(told(err))
	}
	file, err := os.Open(image)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	prediction, _, err := service.Predict(ctx, deployment).Body(file).Execute()
	if err != nil {
		log.Fatal(told(err))
	}
	best := prediction.Classes[0]
	fmt.Printf("%s %.2f, generation %d\n", best.Name, best.Probability, prediction.Generation)
	if _, _, err := service.DetachModule(ctx, deployment, module).Execute(); err != nil {
		log.Fatal(told(err))
	}
}

// The detail of a problem document: expected, got, what to do.
func told(err error) string {
	if answer, ok := err.(*pnc.GenericOpenAPIError); ok {
		if problem, ok := answer.Model().(pnc.ProblemDocument); ok {
			return problem.Code + ": " + problem.Detail
		}
	}
	return err.Error()
}
