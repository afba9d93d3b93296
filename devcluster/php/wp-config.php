<?php
// WordPress reads its settings here. The values come from settings.json beside the document root, which
// devcluster/wordpress.py writes; this file itself is the same for every instance.

$settings = json_decode(file_get_contents(dirname(__DIR__) . '/settings.json'), true);

define('DB_NAME', 'wordpress');
define('DB_USER', 'wordpress');
define('DB_PASSWORD', $settings['database_password']);
define('DB_HOST', 'localhost:' . $settings['database_socket']);
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
$table_prefix = 'wp_';

define('WP_HOME', $settings['home']);
define('WP_SITEURL', $settings['home']);

foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $purpose) {
    define($purpose . '_KEY', hash('sha256', $settings['salt'] . $purpose . 'key'));
    define($purpose . '_SALT', hash('sha256', $settings['salt'] . $purpose . 'salt'));
}

define('WP_ENVIRONMENT_TYPE', 'local');   // application passwords work over plain http
define('WP_POST_REVISIONS', false);       // so that ids depend on the seed alone
define('WP_HTTP_BLOCK_EXTERNAL', true);   // nothing leaves the machine
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);

defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
