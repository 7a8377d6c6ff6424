// Tracks its own job with .NET's HTTP client alone: dotnet run
using System.Net.Http.Headers;
using System.Net.Http.Json;

string Variable(string name) => Environment.GetEnvironmentVariable(name) ?? throw new InvalidOperationException($"{name} is not set: run this as a job");

var run = Variable("MLFLOW_RUN_ID");
using var client = new HttpClient { BaseAddress = new Uri(Variable("MLFLOW_TRACKING_URI").TrimEnd('/') + "/api/2.0/mlflow/") };
client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Variable("MLFLOW_TRACKING_TOKEN"));

async Task Call(string path, object body)
{
    var answer = await client.PostAsJsonAsync(path, body);
    if (!answer.IsSuccessStatusCode)
        throw new InvalidOperationException($"{path}: {(int)answer.StatusCode} {await answer.Content.ReadAsStringAsync()}");
}

await Call("runs/log-parameter", new { run_id = run, key = "language", value = "csharp" });
for (var step = 1; step <= 5; step++)
    await Call("runs/log-metric", new { run_id = run, key = "loss", value = 1.0 / step, timestamp = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(), step });

File.WriteAllText("outputs/notes.txt", "hello from C#\n"); // what lies in ./outputs becomes an artifact of the run
Console.WriteLine($"tracked run {run}");
