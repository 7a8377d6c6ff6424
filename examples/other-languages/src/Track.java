// Tracks its own job with the JDK's HTTP client alone: java Track.java
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Track {
    static final String URI_BASE = System.getenv("MLFLOW_TRACKING_URI");
    static final String TOKEN = System.getenv("MLFLOW_TRACKING_TOKEN");
    static final String RUN = System.getenv("MLFLOW_RUN_ID");
    // HTTP/1.1 said outright: without it the JDK first asks to switch to HTTP/2.
    static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    static void call(String path, String json) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(URI_BASE + "/api/2.0/mlflow/" + path))
            .header("Authorization", "Bearer " + TOKEN)
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(json))
            .build();
        HttpResponse<String> answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new RuntimeException(path + ": " + answer.statusCode() + " " + answer.body());
        }
    }

    public static void main(String[] arguments) throws Exception {
        call("runs/log-parameter", String.format("{\"run_id\": \"%s\", \"key\": \"language\", \"value\": \"java\"}", RUN));
        StringBuilder metrics = new StringBuilder();
        for (int step = 0; step < 100; step++) {
            metrics.append(step == 0 ? "" : ",").append(String.format(java.util.Locale.ROOT,
                "{\"key\": \"loss\", \"value\": %f, \"timestamp\": %d, \"step\": %d}", 1.0 / (step + 1), System.currentTimeMillis(), step));
        }
        call("runs/log-batch", String.format("{\"run_id\": \"%s\", \"metrics\": [%s]}", RUN, metrics));
        System.out.println("tracked run " + RUN);
    }
}
