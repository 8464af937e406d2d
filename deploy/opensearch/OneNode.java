import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.Plugin;
import org.opensearch.transport.Netty4Plugin;

/**
 * Runs one node of OpenSearch over a folder, with HTTP on one port of loopback, until SIGTERM.
 *
 * <p>The server's own main class refuses root and wants the folders of a distribution; a node of the same code does
 * neither.
 */
final class OneNode extends Node {
  private OneNode(Settings settings, List<Class<? extends Plugin>> modules) {
    super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "one"), modules, false);
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 2) {
      System.err.println("usage: opensearch FOLDER PORT");
      System.exit(2);
    }
    Settings settings =
        Settings.builder()
            .put("path.home", Path.of(arguments[0]).toAbsolutePath().toString())
            .put("network.host", "127.0.0.1")
            .put("http.port", arguments[1])
            .put("transport.port", "0")
            // Alone: it waits for no other node, and forms a cluster at once.
            .put("discovery.type", "single-node")
            .put("transport.type", Netty4Plugin.NETTY_TRANSPORT_NAME)
            .put("http.type", Netty4Plugin.NETTY_HTTP_TRANSPORT_NAME)
            // A disk of a test machine may be full to 95 %, at which shards would not be allocated.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
    OneNode node = new OneNode(settings, List.of(Netty4Plugin.class));
    CountDownLatch stopped = new CountDownLatch(1);
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  try {
                    node.close();
                  } catch (java.io.IOException error) {
                    System.err.println(error);
                  }
                  stopped.countDown();
                }));
    node.start();
    stopped.await();
  }
}
