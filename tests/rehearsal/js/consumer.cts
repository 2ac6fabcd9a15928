// A CommonJS host.
import cortex = require("cortex-embed");

void cortex.start().then(async (server) => server.stop());
